"""Which chain the manifest's names lead along, whatever else lies in the bucket."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.archive.errors import ArchiveDamaged, ManifestBroken
from shared.archive.manifest import NO_ENTRY, Entry, chain, decoded, links, name_of

AT = datetime(2026, 5, 4, tzinfo=UTC)


def entry(first: int, last: int, before: Entry | None = None, *, salt: str = "a") -> Entry:
    return Entry(
        stream="VELRO",
        number=before.number + 1 if before else 1,
        first=first,
        last=last,
        count=last - first + 1,
        key=f"velro-log/VELRO/segments/{first}",
        content_sha256=salt * 64,
        content_bytes=10,
        packed_sha256="c" * 64,
        packed_bytes=5,
        previous=before.hash if before else NO_ENTRY,
        first_stored_at=AT,
        last_stored_at=AT,
        last_record_sha256="d" * 64,
    )


def led(*entries: Entry) -> list[str]:
    return [link.name for link in chain(links(name_of(one) for one in entries))]


def names(*entries: Entry) -> list[str]:
    return [name_of(one) for one in entries]


ONE = entry(1, 10)
TWO = entry(11, 20, ONE)
THREE = entry(21, 30, TWO)


def test_an_empty_manifest_leads_nowhere() -> None:
    assert led() == []


def test_the_chain_is_the_same_in_whatever_order_names_come() -> None:
    assert led(THREE, ONE, TWO) == names(ONE, TWO, THREE)


def test_what_is_no_entry_is_passed_by() -> None:
    assert links(["readme.txt", "1-2.json", name_of(ONE) + ".tmp"]) == []


def test_of_two_chains_the_longer_one_counts() -> None:
    other = entry(11, 15, ONE, salt="b")
    assert led(ONE, TWO, THREE, other) == names(ONE, TWO, THREE)
    further = entry(16, 40, other, salt="b")
    assert led(ONE, TWO, THREE, other, further) == names(ONE, other, further)


def test_of_two_equal_chains_everybody_takes_the_same() -> None:
    twin = entry(11, 20, ONE, salt="b")
    taken = led(ONE, TWO, twin)
    assert taken == led(twin, TWO, ONE)
    assert taken in (names(ONE, TWO), names(ONE, twin))


def broken(*entries: Entry) -> list[list[str]]:
    with pytest.raises(ManifestBroken) as raised:
        led(*entries)
    return [[link.name for link in run] for run in raised.value.runs]


def test_a_missing_entry_is_told_and_not_passed_by() -> None:
    with pytest.raises(ManifestBroken, match="leads to position 10 and has entries up to 30"):
        led(ONE, THREE)
    assert broken(ONE, THREE) == [names(ONE), names(THREE)]


def test_a_missing_beginning_is_told() -> None:
    with pytest.raises(ManifestBroken, match="leads to position 0 and has entries up to 30"):
        led(TWO, THREE)
    assert broken(TWO, THREE) == [[], names(TWO, THREE)]


def test_what_is_sound_between_two_missing_entries_is_told_too() -> None:
    four = entry(31, 40, THREE)
    five = entry(41, 50, four)
    assert broken(ONE, THREE, five) == [names(ONE), names(THREE), names(five)]


def test_what_overlaps_with_the_chain_and_reaches_further_breaks_it_as_well() -> None:
    lost = entry(1, 4, salt="b")
    further = entry(5, 40, lost, salt="b")
    assert broken(ONE, TWO, further) == [names(ONE, TWO), names(further)]


def test_a_name_that_names_itself_leads_nowhere() -> None:
    itself = name_of(THREE).replace(TWO.hash[:16], THREE.hash[:16])
    with pytest.raises(ManifestBroken) as raised:
        chain(links([name_of(ONE), itself]))
    assert [[link.name for link in run] for run in raised.value.runs] == [names(ONE), [itself]]


def test_positions_that_do_not_follow_are_no_chain() -> None:
    gap = entry(12, 20, ONE)
    with pytest.raises(ArchiveDamaged):
        led(ONE, gap)


def test_an_entry_under_anothers_name_is_told() -> None:
    (link,) = links([name_of(TWO)])
    with pytest.raises(ArchiveDamaged, match="holds another entry"):
        decoded(THREE.encoded(), link)


def test_an_entry_that_was_cut_off_is_told() -> None:
    (link,) = links([name_of(TWO)])
    with pytest.raises(ArchiveDamaged, match="cannot be read"):
        decoded(TWO.encoded()[:-5], link)
    assert decoded(TWO.encoded(), link) == TWO
