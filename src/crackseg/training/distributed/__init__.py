"""Train one model in several processes, on several GPUs or machines."""
