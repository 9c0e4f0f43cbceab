"""The subjects of the demo reviews: products, places and services, with facts about each."""

from __future__ import annotations

from typing import Final, NamedTuple


class Domain(NamedTuple):
    """A subject of reviews: its kind, names and aspects, and facts. A fact is a pair: (unfavourable, favourable)."""

    kind: str
    names: tuple[str, ...]
    aspects: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


# The same word is favourable for one subject and unfavourable for another (a loud speaker, a loud fan), so a model
# must combine words. It cannot just add up a score for each word.
SHARED: Final[tuple[Domain, ...]] = (
    Domain(
        "thing",
        ("phone", "handset"),
        ("screen", "battery", "camera", "speaker", "case"),
        (
            ("the battery is flat by noon", "the battery lasts two days"),
            ("the speaker is quiet", "the speaker is loud"),
            ("the screen scratches at once", "the screen never scratches"),
            ("the case gets hot", "the case stays cool"),
            ("photos come out dark", "photos come out bright"),
        ),
    ),
    Domain(
        "thing",
        ("laptop", "computer"),
        ("keyboard", "screen", "fan", "hinge", "touchpad"),
        (
            ("the fan is loud", "the fan is quiet"),
            ("it takes minutes to start", "it starts in seconds"),
            ("keys get stuck", "keys never get stuck"),
            ("the screen is dark", "the screen is bright"),
            ("the lid feels loose", "the lid feels firm"),
        ),
    ),
    Domain(
        "thing",
        ("headset", "pair of headphones"),
        ("sound", "cable", "microphone", "padding", "headband"),
        (
            ("they hurt after an hour", "they feel light all day"),
            ("the bass is thin", "the bass is full"),
            ("the cable came loose", "the cable held firm"),
            ("callers cannot hear me", "callers hear me clearly"),
            ("the street noise gets in", "the street noise stays out"),
        ),
    ),
    Domain(
        "thing",
        ("vacuum cleaner", "hoover"),
        ("motor", "hose", "filter", "handle", "brush"),
        (
            ("the motor is loud", "the motor is quiet"),
            ("it leaves dust behind", "it leaves no dust behind"),
            ("the hose is short", "the hose is long"),
            ("it is heavy on the stairs", "it is light on the stairs"),
            ("the bag is full too soon", "the bag is easy to change"),
        ),
    ),
    Domain(
        "thing",
        ("coffee machine", "espresso maker"),
        ("coffee", "milk foam", "water tank", "finish", "timer"),
        (
            ("the coffee comes out cold", "the coffee comes out hot"),
            ("it leaks every morning", "it never leaks"),
            ("the tank is hard to clean", "the tank is easy to clean"),
            ("the foam is thin", "the foam is full"),
            ("the first cup takes minutes", "the first cup takes seconds"),
        ),
    ),
    Domain(
        "thing",
        ("tent", "shelter"),
        ("fabric", "zip", "frame", "floor", "bag"),
        (
            ("the rain gets in", "the rain stays out"),
            ("the poles are heavy", "the poles are light"),
            ("it takes hours to put up", "it takes minutes to put up"),
            ("the zip got stuck", "the zip never gets stuck"),
            ("the floor feels cold", "the floor feels warm"),
        ),
    ),
    Domain(
        "place",
        ("hotel", "guest house"),
        ("room", "breakfast", "bed", "view", "service"),
        (
            ("the room was loud", "the room was quiet"),
            ("the bathroom was dirty", "the bathroom was clean"),
            ("the shower was cold", "the shower was hot"),
            ("the staff were rude", "the staff were kind"),
            ("the wait at the desk was long", "the wait at the desk was short"),
        ),
    ),
    Domain(
        "place",
        ("restaurant", "bistro"),
        ("soup", "menu", "service", "dessert", "wine list"),
        (
            ("the soup was cold", "the soup was hot"),
            ("the beer was warm", "the beer was cold"),
            ("the portions were small", "the portions were big"),
            ("the bill was big", "the bill was small"),
            ("the waiter was rude", "the waiter was kind"),
        ),
    ),
    Domain(
        "service",
        ("budget app", "calendar app"),
        ("layout", "search", "latest version", "help page", "design"),
        (
            ("it crashes every day", "it never crashes"),
            ("the menus are hard to follow", "the menus are easy to follow"),
            ("the list of bugs is long", "the list of bugs is short"),
            ("it loses my notes", "it keeps my notes safe"),
            ("support takes weeks to answer", "support answers in minutes"),
        ),
    ),
    Domain(
        "service",
        ("online course", "evening class"),
        ("teacher", "textbook", "pace", "video material", "homework"),
        (
            ("the lessons are hard to follow", "the lessons are easy to follow"),
            ("the examples are full of mistakes", "the examples are free of mistakes"),
            ("nobody answers questions", "questions get answered in minutes"),
            ("the fee is big", "the fee is small"),
            ("the teacher was rude", "the teacher was kind"),
        ),
    ),
)

HELD_OUT: Final[tuple[Domain, ...]] = (
    Domain(
        "thing",
        ("bicycle", "folding bike"),
        ("frame", "saddle", "gear shift", "lamp", "finish"),
        (
            ("the brakes are loud", "the brakes are quiet"),
            ("the frame is heavy", "the frame is light"),
            ("the chain came loose", "the chain held firm"),
            ("the saddle hurts after an hour", "the saddle feels soft all day"),
        ),
    ),
    Domain(
        "service",
        ("parcel service", "courier"),
        ("driver", "tracking page", "packaging", "hotline", "timing"),
        (
            ("the driver was rude", "the driver was kind"),
            ("the wait was long", "the wait was short"),
            ("parcels arrive late", "parcels arrive early"),
            ("support takes weeks to answer", "support answers in minutes"),
        ),
    ),
)
