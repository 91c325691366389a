"""The table of planted faults fits the source; the faults themselves are tried by hand."""

from benchmark_scripts import script


def test_every_fault_has_its_text_in_the_source_exactly_once_and_tests_that_are_there():
    with script("planted_faults") as planted:
        faults = planted.read_table(planted.TABLE.read_text(encoding="utf-8"))
        assert len(faults) > 100
        assert planted.mistakes(faults) == []


def test_a_text_that_is_not_there_and_a_test_that_is_not_there_are_told(tmp_path):
    with script("planted_faults") as planted:
        (tmp_path / planted.SOURCE).mkdir(parents=True)
        (tmp_path / planted.SOURCE / "a.py").write_text("one = 1\none = 1\n")
        table = "# twice\na.py\n- one = 1\n+ one = 2\ntests/test_a.py::test_one\n"
        (fault,) = planted.read_table(table)
        text, test = planted.mistakes([fault], tmp_path)
        assert "has its text 2 times" in text
        assert "there is no test tests/test_a.py::test_one" in test
