"""Hugging Face Trainer. Its own default optimizer, fused AdamW, is Adam at its default weight decay of zero."""

import tempfile

from transformers import Trainer, TrainingArguments

from benchmarks.work import Work


def train(work: Work) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=work.micro_batch,
            per_device_eval_batch_size=32,
            gradient_accumulation_steps=work.accumulation_steps,
            num_train_epochs=1,
            learning_rate=work.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            bf16=work.precision == "bfloat16",
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=work.device == "cpu",
            seed=work.seed,
        )
        trainer = Trainer(model=work.classifier(), args=arguments, train_dataset=work.dataset())
        trainer.train()
        if work.validate:
            predicted = trainer.predict(work.dataset("validation"))
            correct = int((predicted.predictions.argmax(axis=1) == predicted.label_ids).sum())
            work.facts["validation"] = {"correct": correct, "examples": len(predicted.label_ids)}
