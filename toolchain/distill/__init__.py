"""Everything that changes weights by training them to follow a teacher: the loop, and what is trained by it."""
