"""Shows a run to trackers: TensorBoard always, wandb, SwanLab and MLflow when the recipe names them.

All of them read what the event log says. TensorBoard's files are written by the training process itself; each of the
others is a process of its own (``follower``) that follows the log, so that a library which hangs, fails or computes
takes nothing from the training. They get figures and settings, never texts of the user's.
"""
