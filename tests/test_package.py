import pytest

import jaxsci


def test_rooms_load_on_first_use():
    for room in jaxsci.__all__:
        getattr(jaxsci, room)


def test_an_unknown_room_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ballroom'"):
        _ = jaxsci.ballroom
