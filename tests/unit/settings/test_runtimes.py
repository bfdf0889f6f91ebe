from tests.unit.settings.complaints import complaint


def test_ids_must_fit_into_those_there_are() -> None:
    assert "start + count is over 4294967294" in complaint(
        "runtimes: {process: {ids: {start: 4294967000, count: 65536}}}\n"
    )
