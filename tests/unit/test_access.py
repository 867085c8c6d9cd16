"""SyncType is an enum like any other, whatever makes finding its members cheap."""

from __future__ import annotations

import enum
import pickle

import pytest

from dmasync import SyncType


def test_members_are_found_by_attribute_item_and_value():
    assert SyncType.READ is SyncType["READ"] is SyncType(1)
    assert SyncType.WRITE is SyncType["WRITE"] is SyncType(2)
    assert SyncType.READ | SyncType.WRITE is SyncType.READ_WRITE is SyncType["READ_WRITE"] is SyncType(3)


def test_what_is_no_member_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NOTHING"):
        SyncType.NOTHING  # noqa: B018
    assert not hasattr(SyncType, "_nothing")


def test_it_is_a_flag_in_every_other_way():
    assert issubclass(SyncType, enum.Flag)
    assert list(SyncType.__members__) == ["READ", "WRITE", "READ_WRITE"]
    assert SyncType.__name__ == "SyncType"
    assert SyncType.READ in SyncType.READ_WRITE
    assert pickle.loads(pickle.dumps(SyncType.READ_WRITE)) is SyncType.READ_WRITE  # noqa: S301


def test_members_cannot_be_assigned():
    with pytest.raises(AttributeError, match=r"READ|reassign members"):
        SyncType.READ = 3
