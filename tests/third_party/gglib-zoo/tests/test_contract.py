"""Source and engine keep the promises of their ports."""

import pytest
from gglib_zoo import open_animal_engine, open_zoo

from gglib.testing import EngineContract, KnownModel, ModelSourceContract, make_context


class TestZoo(ModelSourceContract):
    references_are_paths = False

    @pytest.fixture
    def open_source(self):
        return open_zoo

    @pytest.fixture
    def context(self, tmp_path):
        return make_context(tmp_path, name="zoo", settings={"folder": str(tmp_path)})

    @pytest.fixture
    def a_model(self, tmp_path):
        (tmp_path / "parrot.animal").write_text("hello\n")
        return KnownModel(reference="parrot", size_bytes=6)

    @pytest.fixture
    def missing_reference(self):
        return "dodo"


class TestAnimal(EngineContract):
    needs_probe = False

    @pytest.fixture
    def open_engine(self):
        return open_animal_engine
