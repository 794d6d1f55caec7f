"""``python -m bench NAME …``: measurements and comparisons; without a name it lists them."""

import sys

USAGE = """usage: python -m bench train|serving|load|vllm|export|kernels|predictions|data [OPTIONS]

  train     Danlu's training against LLaMA-Factory's
  serving   Danlu's serving against the script it replaces
  load      the server under load and with broken engines, beside its limits
  vllm      the gateway in front of a real vLLM: do they work together
  export    how much memory exporting takes
  kernels   parts of a training step beside the plain way
  predictions  what the plan predicts beside what runs take
  data      how fast data are checked and encoded

`python -m bench train --help` lists the options; bench/README.md says how to read the results."""


def main() -> int:
    """Hand the words on to the measurement that the first one names."""
    name, words = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if name == "train":
        from bench import train_vs_peers

        return train_vs_peers.main(words)
    if name == "serving":
        from bench import serving_vs_script

        sys.argv = ["python -m bench serving", *words]
        serving_vs_script.main()
        return 0
    if name == "load":
        from bench import serving_load

        return serving_load.main(words)
    if name == "vllm":
        from bench import vllm_engine

        return vllm_engine.main(words)
    if name == "export":
        from bench import export_memory

        return export_memory.main(words)
    if name == "kernels":
        from bench import kernels

        return kernels.main(words)
    if name == "predictions":
        from bench import predictions

        return predictions.main(words)
    if name == "data":
        from bench import data_speed

        return data_speed.main(words)
    print(USAGE, file=sys.stderr)
    return 0 if name in {"-h", "--help"} else 2


if __name__ == "__main__":
    sys.exit(main())
