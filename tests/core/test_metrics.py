"""The table of metrics, its histograms, and what is read from them."""

import pytest

from pyraft.metrics import BOUNDS, COUNTER, GAUGE, HISTOGRAM, METRICS, Histogram, Metrics, quantile
from tests.integration.clusters import alone


def measured(*seconds):
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    return dict(histogram.numbers("x"))


def test_a_histogram_counts_what_is_at_most_each_bound():
    numbers = measured(0.000003, 0.001, 0.0011, 1.5, 100.0)

    assert numbers["x_count"] == 5
    assert numbers["x_sum"] == pytest.approx(101.502103)
    assert numbers["x_le_0.00001"] == numbers["x_le_0.0005"] == 1
    assert numbers["x_le_0.001"] == 2
    assert numbers["x_le_0.002"] == numbers["x_le_1"] == 3
    assert numbers["x_le_2"] == numbers["x_le_50"] == 4  # 100 s is beyond all bounds
    assert len(numbers) == len(BOUNDS) + 2
    assert all(type(value) is (float if name == "x_sum" else int) for name, value in numbers.items())


def test_many_measurements_of_one_batch_are_one_addition():
    one_by_one = measured(0.25, 0.25, 0.25)
    histogram = Histogram()
    histogram.add(0.25, count=3)
    assert dict(histogram.numbers("x")) == one_by_one


def test_a_quantile_lies_between_the_bounds_of_its_measurement():
    numbers = measured(*[0.0015] * 98, 0.15, 7.0)

    assert 0.001 <= quantile(numbers, "x", 0.5) <= 0.002
    assert quantile(numbers, "x", 0.98) == 0.002
    assert 0.1 < quantile(numbers, "x", 0.99) <= 0.2
    assert 5 < quantile(numbers, "x", 1.0) <= 10
    assert quantile(measured(), "x", 0.99) is None
    assert quantile(measured(1000.0), "x", 0.99) == BOUNDS[-1]
    with pytest.raises(KeyError):
        quantile(numbers, "y", 0.5)


def test_the_table_and_what_is_shown_are_the_same():
    expected = set()
    for metric in METRICS:
        assert metric.kind in (COUNTER, GAUGE, HISTOGRAM)
        assert metric.unit and metric.meaning.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == COUNTER)
        if metric.kind == HISTOGRAM:
            assert metric.name.endswith("_seconds")
            expected |= set(dict(Histogram().numbers(metric.name)))
        else:
            expected.add(metric.name)
    assert len({metric.name for metric in METRICS}) == len(METRICS)

    raft = alone()
    try:
        assert set(raft.metrics()) == expected
    finally:
        raft.shutdown().result(20)


def test_what_was_read_does_not_change_afterwards():
    metrics = Metrics()
    before = metrics.as_dict()
    metrics.log_written(0.5)
    assert before["log_write_seconds_count"] == before["log_write_max_seconds"] == 0
    assert metrics.as_dict()["log_write_seconds_count"] == 1
