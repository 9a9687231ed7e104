"""Local tasks, semaphores and worker pools: what lives and dies with the process. None of it needs a server."""
