"""Which products to keep out of INT8."""

from typing import Any

from toolchain.cli.show import put, titled

MUCH = 0.3
"""Share of the work from which keeping it out of INT8 is no remedy."""


def tuned(found: dict[str, Any]) -> None:
    """Print the products by their effect, the set that was found, and how to build it."""
    measured = [one for one in found["products"] if one["effect"] is not None]
    table = titled(f"{found['bundle']}: the noisiest products")
    for heading in ("product", "SNR, dB", "effect", "drop", "work", "keep"):
        table.add_column(heading, justify="left" if heading == "product" else "right", no_wrap=True)
    for one in sorted(measured, key=lambda one: -float(one["effect"])):
        kept = "yes" if one["name"] in found["keep"] else ""
        table.add_row(
            one["name"],
            f"{one['snr_db']:.1f}",
            f"{one['effect']:.4f}",
            f"{one['drop_points']:.2f}",
            f"{one['macs']:.1%}",
            kept,
        )
    expected = f"{found['expected_drop_points']:.2f} points expected, {found['max_drop_points']:g} allowed"
    verdict = (
        f"keep {len(found['keep'])} products, {found['keep_share_of_macs']:.1%} of the work, out of INT8: {expected}"
    )
    if not found["keep"]:
        verdict = f"nothing need be kept out of INT8: {expected}"
    if found["keep_share_of_macs"] > MUCH:
        verdict += ". That is much: calibrate with --calib-method auto first"
    if not found["enough"]:
        verdict = f"no set within the budget is enough; the nearest: {verdict}"
    files = found["files"]
    put(
        table,
        "SNR: at its own output. Effect on the logits, and points of drop to expect, when it alone is in INT8",
        verdict,
    )
    put(f"{found['evaluations']} graphs evaluated; table {files['record']}, plot {files['plot']}")
    put(f"next: toolchain build {files['recipe']} --max-drop {found['max_drop_points']:g}")
