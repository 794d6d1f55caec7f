"""The kind of server that the old recipe tells people to write (its step 8), for comparison only.

FastAPI and transformers, fp32 on a processor, one blocking ``generate`` in an async route, fixed settings.
``OLD_MODEL`` names the merged folder, ``OLD_BEAMS`` the number of beams (4 in the recipe).
"""

import os

import torch
from fastapi import FastAPI
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = os.environ["OLD_MODEL"]
BEAMS = int(os.environ.get("OLD_BEAMS", "4"))

app = FastAPI()
tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


@app.get("/answer")
async def answer(prompt: str) -> dict[str, str]:
    inputs = tokenizer(prompt, return_tensors="pt")
    outputs = model.generate(
        **inputs,
        max_length=100,
        min_length=30,
        do_sample=True,
        top_p=0.85,
        temperature=0.6,
        repetition_penalty=1.2,
        no_repeat_ngram_size=3,
        num_beams=BEAMS,
        early_stopping=BEAMS > 1,
    )
    return {"generated_text": tokenizer.decode(outputs[0], skip_special_tokens=True)}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy", "model": MODEL}
