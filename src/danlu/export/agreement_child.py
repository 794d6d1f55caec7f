"""The llama.cpp side of the agreement check, in a process of its own: a GGUF file in, what it does out.

Run as ``python -m danlu.export.agreement_child WEIGHTS JOB RESULT``; job and result are JSON files (``Job`` and
``Answers`` of ``agreement``). llama.cpp aborts on a file it cannot use, takes over signal handlers, and must not share
a process with torch; here it may do all of that. Not to be imported by anything.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final

from danlu.processes import watch_parent

_TIMEOUT: Final = 120.0


class _Server:
    """llama.cpp's own HTTP server on a loopback port, with a random key."""

    def __init__(self, weights: Path, context: int, threads: int, adapter: str | None) -> None:
        import xllamacpp

        self._key = secrets.token_hex(16)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(weights)
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.api_keys = [self._key]
        parameters.cors_origins = ""
        parameters.ui = False
        parameters.n_parallel = 1
        parameters.n_ctx = context
        parameters.n_batch = parameters.n_ubatch = min(context, 512)
        parameters.cache_ram_mib = 0
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.warmup = False
        parameters.fit_params = False
        parameters.no_extra_bufts = True  # weights stay in the mapped file; repacking copies all of them
        parameters.verbosity = 2
        # Exact comparison with the source: nothing of the key/value cache is rounded to fewer bits than float32, and
        # attention is the plain one (llama.cpp's flash attention multiplies in 16 bits, whatever the cache holds).
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        if adapter is not None:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
        self._server = xllamacpp.Server(parameters)
        self._url = str(self._server.listening_address)

    def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        """Send one request and return the answer."""
        request = urllib.request.Request(  # noqa: S310 - the server's own loopback address
            self._url + path,
            data=json.dumps(body).encode("utf-8"),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
        return answer


def main(weights: Path, job_file: Path, result_file: Path) -> None:
    """Do the job and write the result."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    server = _Server(weights, job["context"], job["threads"], job["adapter"])
    token_ids = [
        server.post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
        for text in job["texts"]
    ]
    answers = [_complete(server, prompt, job["new_tokens"], job["candidates"]) for prompt in job["prompts"]]
    forced = [_complete(server, prefix, 1, job["candidates"]) for prefix in job["prefixes"]]
    ends = [_ends(server, job["prompts"][0], stop_id) for stop_id in job["stop_ids"]]
    result = {"token_ids": token_ids, "answers": answers, "forced": forced, "ends": ends}
    result_file.write_text(json.dumps(result), encoding="utf-8")


def _complete(server: _Server, prompt: list[int], new_tokens: int, candidates: int) -> dict[str, object]:
    """Continue a prompt greedily; return the ids, and for the positions that llama.cpp tells of, the likely ids."""
    answer = server.post(
        "/completion",
        {
            "prompt": prompt,
            "n_predict": new_tokens,
            "n_probs": candidates,
            "temperature": 0.0,
            "repeat_penalty": 1.0,
            "cache_prompt": True,
            "return_tokens": True,
            "stream": False,
        },
    )
    positions = answer.get("completion_probabilities", [])
    return {
        "ids": answer["tokens"],
        "candidates": [
            {"id": position["id"], "top": [(top["id"], top["logprob"]) for top in position["top_logprobs"]]}
            for position in positions
        ],
    }


def _ends(server: _Server, prompt: list[int], stop_id: int) -> bool:
    """Make the model say ``stop_id`` and see whether llama.cpp takes it for the end of the answer."""
    answer = server.post(
        "/completion",
        {"prompt": prompt, "n_predict": 2, "temperature": 0.0, "logit_bias": [[stop_id, 1000.0]], "stream": False},
    )
    return bool(answer.get("stop_type") == "eos")


if __name__ == "__main__":
    watch_parent()
    main(*map(Path, sys.argv[1:4]))
    sys.stdout.flush()
    # The server's threads and the watcher of the parent do not end by themselves.
    os._exit(0)
