"""Names of models to what can be loaded."""

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from cli import models as named
from opcd_agents.errors import ModelError, UnknownNameError, UsageError
from opcd_agents.recipe import Recipe


def test_a_folder_stands_for_itself(tmp_path):
    assert named.resolve(str(tmp_path)) == str(tmp_path)


def test_a_name_on_the_hub_passes():
    assert named.resolve("Qwen/Qwen3-1.7B") == "Qwen/Qwen3-1.7B"


@pytest.mark.parametrize("name", named.PACKAGED)
def test_a_packaged_model_is_a_folder_or_a_clear_error(name):
    weights = Path(named.__file__).parents[1] / "opcd_agents" / "pocket" / "weights" / name
    if weights.is_dir():
        assert Path(named.resolve(name)) == weights
    else:
        with pytest.raises(ImportError, match="ships: pocket"):
            named.resolve(name)


def test_a_recipe_file_changes_what_suits_the_model(tmp_path):
    file = tmp_path / "longer.toml"
    file.write_text("updates = 100")
    assert named.recipe("pocket", file) == replace(named.recipe("pocket"), updates=100)
    assert named.recipe("org/name", file) == Recipe(updates=100)


def test_the_papers_recipe_leaves_nothing_to_the_model():
    for file in (Path(named.__file__).parents[1] / "recipes").glob("paper-*.toml"):
        assert named.recipe("pocket", file) == named.recipe("org/name", file) != named.recipe("pocket")


@pytest.mark.parametrize("name", ["http://localhost:8000/v1", "https://host/v1"])
def test_what_needs_weights_takes_no_endpoint(name):
    with pytest.raises(UsageError, match="weights are here"):
        named.resolve(name)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "../nowhere"])
def test_a_path_must_lead_to_a_folder(name):
    with pytest.raises(UsageError, match="no folder"):
        named.resolve(name)


@pytest.mark.parametrize("name", ["pockets", "", "a b", "a/b/c", "poket-large"])
def test_other_names_are_unknown(name):
    with pytest.raises(UnknownNameError):
        named.resolve(name)


def test_tokens_are_counted_without_the_model(tmp_path):
    core = Tokenizer(models.WordLevel({"coin": 0, "in": 1, "<|end|>": 2, "?": 3}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["<|end|>"])
    core.save(str(tmp_path / "tokenizer.json"))
    count = named.token_counter(str(tmp_path))
    assert count("coin in crate") == 3
    assert count("") == 0


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        named.token_counter(str(tmp_path))
