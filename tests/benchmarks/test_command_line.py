"""What of a plan the command line chooses."""

import pytest

from benchmarks.__main__ import chosen, heading, parse
from benchmarks.plan import PLANS


def names(found):
    return {group.name: [subject.name for subject in group.subjects] for group in found}


def test_without_options_a_plan_is_as_it_is():
    assert chosen(PLANS["peers"](), parse(["peers"])) == PLANS["peers"]()


def test_groups_subjects_and_works_can_be_chosen():
    arguments = parse(
        [
            "peers",
            "--groups",
            "load,failover",
            "--subjects",
            "pyraft-lmdb-tcp,hashicorp-wal-tcp",
            "--works",
            "one",
        ]
    )

    found = chosen(PLANS["peers"](), arguments)

    assert names(found) == {
        "load": ["pyraft-lmdb-tcp", "hashicorp-wal-tcp"],
        "failover": ["pyraft-lmdb-tcp"],
    }
    assert [work.name for work in found[0].works] == ["one"]


def test_a_quick_look_is_short_and_not_mistaken_for_a_measurement():
    quick = chosen(PLANS["peers"](), parse(["peers", "--quick"]))

    assert {group.rounds for group in quick} == {1}
    assert not {group.digest() for group in quick if group.kind == "load"} & {
        group.digest() for group in PLANS["peers"]()
    }


def test_the_servers_files_are_where_they_are_wherever_a_server_runs():
    assert parse(["ours", "--home", "somewhere"]).home.is_absolute()


@pytest.mark.parametrize("disk", ["tmpfs", "ext4"])
def test_files_in_memory_are_not_passed_over_in_silence(disk):
    header = {
        **dict.fromkeys(("cores", "cpu", "load_average", "system", "python", "commit"), "x"),
        "versions": {},
        "limits_us": {},
        "disk": disk,
    }

    assert ("nothing is ever flushed" in heading(header)) == (disk == "tmpfs")
