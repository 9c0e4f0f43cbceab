from collections.abc import Iterator
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from toolchain.data import hub


class Session:
    """A client of the hub with the answer that it gets; keeps what was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, float]] = []

    def head(self, url: str, *, timeout: float) -> Any:
        self.asked.append((url, timeout))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    hub.unreachable.cache_clear()
    yield
    hub.unreachable.cache_clear()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a session in the place of the hub's client."""

    def answers(answer: Any) -> Session:
        session = Session(answer)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
        return session

    return answers


def test_a_hub_that_answers_is_reachable_and_asked_once(online: Any) -> None:
    session = online("200")
    assert hub.unreachable() is hub.unreachable() is None
    assert session.asked == [(constants.ENDPOINT, hub.TIMEOUT_S)]


def test_a_hub_that_does_not_answer_has_its_reason(online: Any) -> None:
    online(TimeoutError())
    assert hub.unreachable() == f"{constants.ENDPOINT}: TimeoutError"


def test_offline_nobody_is_asked(online: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = online("200")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.unreachable() == f"{constants.ENDPOINT}: HF_HUB_OFFLINE is set"
    assert session.asked == []
