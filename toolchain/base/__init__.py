"""What every part uses: files that are whole or absent, arrays and batches, progress on the terminal."""
