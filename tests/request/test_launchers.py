"""How many processes a launcher is told to start."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.request.files import read_config_file

SWIFT = "swift/cli/sft.py --model gpt2"
TRL = "sft.py --model_name_or_path gpt2 --use_peft"


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        pytest.param(f"torchrun --nproc_per_node 8 {SWIFT}", 8, id="torchrun"),
        pytest.param(f"torchrun --nproc-per-node=8 --nnodes 2 -m {SWIFT.replace('/', '.').replace('.py', '')}", 16,
                     id="two machines, a module"),
        pytest.param(f"torchrun {SWIFT}", 1, id="torchrun starts one"),
        pytest.param(f"torchrun --nproc_per_node gpu {SWIFT}", None, id="all that are there"),
        pytest.param(f"torchrun --nnodes 1:4 --nproc_per_node 8 {SWIFT}", None, id="a range of machines"),
        pytest.param(f"torchrun --nnodes 2:2 --nproc_per_node 8 {SWIFT}", 16, id="a range of one number"),
        pytest.param(f"NPROC_PER_NODE=2 torchrun --nproc_per_node 8 {SWIFT}", 8, id="the option counts"),
        pytest.param(f"N=4\npython -m torch.distributed.run --nproc_per_node $N {SWIFT}", 4, id="torchrun's module"),
        pytest.param(f"torchrun --nproc_per_node $N {SWIFT}", None, id="a run knows"),
        pytest.param("NNODES=2 NPROC_PER_NODE=4 swift sft --model gpt2", 8, id="ms-swift on two machines"),
        pytest.param("NNODES=$N NPROC_PER_NODE=4 swift sft --model gpt2", None, id="on a number that a run knows"),
        pytest.param("NPROC_PER_NODE=4 llamafactory-cli train --model_name_or_path gpt2 --finetuning_type lora", 4,
                     id="llama-factory"),
        pytest.param("llamafactory-cli train --model_name_or_path gpt2 --finetuning_type lora", None,
                     id="llama-factory takes all GPUs"),
        pytest.param(f"NPROC_PER_NODE=4 python {TRL}", None, id="a variable that nobody reads"),
        pytest.param(f"deepspeed --num_gpus 4 {TRL}", 4, id="deepspeed"),
        pytest.param(f"deepspeed --num_gpus=4 --num_nodes 2 {TRL}", 8, id="deepspeed on two machines"),
        pytest.param(f"deepspeed --include localhost:0,2,3 {TRL}", 3, id="deepspeed on some GPUs"),
        pytest.param(f"deepspeed -i a:0,1@b:0 {TRL}", 3, id="of two machines"),
        pytest.param(f"deepspeed -i a:0,1@b {TRL}", None, id="all of the second"),
        pytest.param(f"deepspeed --hostfile h --num_gpus 4 {TRL}", None, id="a file of machines"),
        pytest.param(f"deepspeed {TRL}", None, id="deepspeed takes all GPUs"),
        pytest.param(f"CUDA_VISIBLE_DEVICES=0,3 deepspeed {TRL}", 2, id="all that are visible"),
        pytest.param(f"CUDA_VISIBLE_DEVICES=0,3 deepspeed --num_gpus 4 {TRL}", 4, id="DeepSpeed ignores them"),
        pytest.param(f"CUDA_VISIBLE_DEVICES=$GPUS deepspeed {TRL}", None, id="a run knows which are visible"),
        pytest.param(f"export CUDA_VISIBLE_DEVICES=0,1\ntorchrun --nproc_per_node auto {SWIFT}", 2, id="torchrun's auto"),
        pytest.param("CUDA_VISIBLE_DEVICES=0 llamafactory-cli train --model_name_or_path gpt2 --finetuning_type lora", 1,
                     id="LLaMA-Factory takes the one"),
        pytest.param("CUDA_VISIBLE_DEVICES=0,1 swift sft --model gpt2", 1, id="ms-swift starts one"),
        pytest.param(f"accelerate launch --num_processes 8 --num_machines 2 {TRL}", 8, id="accelerate counts all"),
        pytest.param(f"accelerate launch --num-processes=8 -m trl.scripts.{TRL.replace('.py', '')}", 8,
                     id="accelerate, a module that is not known"),
        pytest.param(f"accelerate launch {TRL}", None, id="accelerate's own config"),
        pytest.param(f"trl {TRL.replace('.py', '')} --num_processes 3", 3, id="TRL hands it on"),
        pytest.param(f"trl {TRL.replace('.py', '')} --accelerate_config zero3", 8, id="a config that TRL ships"),
        pytest.param(f"trl {TRL.replace('.py', '')} --accelerate_config zero3 --num_processes 2", 2, id="with others"),
        pytest.param(f"trl {TRL.replace('.py', '')} --accelerate_config my.yaml", None, id="one's own config"),
        pytest.param(f"python -m accelerate.commands.launch --num_processes 4 {TRL}", 4, id="accelerate's module"),
        pytest.param(f"uv run --with a torchrun --nproc_per_node 4 {SWIFT}", 4, id="uv starts the launcher"),
        pytest.param(f"ray job submit --num_gpus 8 -- accelerate launch --num_processes 4 {TRL}", 4, id="so does Ray"),
        pytest.param(f"srun bash -c 'deepspeed --num_gpus 4 {TRL}'", 4, id="and a shell's text"),
        pytest.param(f"export NPROC_PER_NODE=2\nsh -ec \"{SWIFT.replace('swift/cli/sft.py', 'swift sft')}\"", 2,
                     id="with the variables around it"),
        pytest.param(f"python {TRL} --num_processes 3", None, id="an option of the script"),
    ],
)  # fmt: skip
def test_processes_that_a_launcher_starts(tmp_path: Path, text: str, gpus: int | None) -> None:
    path = tmp_path / "a.sh"
    path.write_text(text)
    assert read_config_file(str(path)).gpus == gpus
