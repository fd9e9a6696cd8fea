"""lm-evaluation-harness on an exported model of bytes gives the loss that `lighthouse eval` gives. Needs no network: the task
is a file."""

import json
import math
import os

import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed")
from lm_eval.tasks import TaskManager  # noqa: E402
from trained_run import SEQ_LEN, Trained, words  # noqa: E402

TASK = """
task: our_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/text.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}, {{metric: byte_perplexity}}]
"""


def test_lm_eval_says_what_eval_says(lighthouse, tmp_path):
    """The harness has the begin of text, which is byte 0, before the first byte. Both compute in fp32, in another order."""
    trained = Trained(lighthouse, tmp_path, **{"training.steps": 20, "training.lighthouse_steps": 10})
    trained("export", "--output", tmp_path / "model")
    text = words(40, seed=5).encode()[:SEQ_LEN].decode()
    (tmp_path / "held_out").mkdir()
    (tmp_path / "held_out" / "text.txt").write_text("\0" + text)
    ours = json.loads(trained("eval", "--model", tmp_path / "model", "--data", tmp_path / "held_out", "--seq-len", SEQ_LEN,
                              "--attention", "dense", "--json", run=False))["tasks"]["loss"]["dense"]
    assert ours["targets"] == len(text)

    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (tmp_path / "our_text.yaml").write_text(TASK.format(folder=tmp_path))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(model="hf", model_args=f"pretrained={tmp_path}/model,dtype=float32", tasks=["our_text"],
                                      device="cpu", task_manager=manager, bootstrap_iters=0)["results"]["our_text"]
    assert results["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], rel=1e-5)
    assert results["byte_perplexity,none"] == pytest.approx(math.exp(ours["loss"]), rel=1e-5)
