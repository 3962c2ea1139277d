"""What is said where a submission is interrupted."""

import pytest

from banyan.cli.submit import _interrupted_in_words

ONE = {"_id": "6" * 24, "command": "true"}


def test_after_ctrl_c_it_is_said_how_to_find_what_is_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt), _interrupted_in_words([ONE] * 3):
        raise KeyboardInterrupt
    assert f"some of the 3 tasks may be stored: see banyan progress @{'6' * 24}" in (
        capsys.readouterr().err
    )
    with pytest.raises(KeyboardInterrupt), _interrupted_in_words([ONE]):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
