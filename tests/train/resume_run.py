"""One checkpointed run, which may kill itself; the tests start it as a process of its own.

`python resume_run.py DIRECTORY never|before-saving|after-saving|while-saving`
"""

import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import optax

from jaxsci import train

NUM_STEPS, EVERY = 40, 10


def _loss(params, batch, key):
    x, y = batch
    pred = jnp.tanh(x * params["inner"]) @ params["outer"]
    noise = 0.01 * jax.random.uniform(key, y.shape)
    return jnp.mean((pred - y + noise) ** 2) + jnp.mean((params["table"] - 1) ** 2)


_TX = optax.adamw(1e-2)


def run(directory, callbacks=()):
    """Train a small network and a table (large, so that saving takes a while) on minibatches."""
    x = jnp.linspace(-1, 1, 64)[:, None]
    params = {
        "inner": jnp.linspace(0, 4, 8),
        "outer": jnp.linspace(-1, 1, 8),
        "table": jnp.zeros((1000, 500)),
    }
    return train.fit(
        _loss,
        params,
        train.minibatches((x, jnp.sin(3 * x[:, 0])), 16, key=jax.random.key(1)),
        _TX,
        key=jax.random.key(2),
        num_steps=NUM_STEPS,
        ema=0.9,
        log_every=1,
        callbacks=callbacks,
        checkpoint=train.Checkpoint(directory, every=EVERY, keep=2),
    )


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_while_saving(directory):
    while not any("tmp" in name for name in os.listdir(directory)):
        time.sleep(0.0005)
    _kill()


if __name__ == "__main__":
    directory, when = sys.argv[1:]
    first = max([int(name) for name in os.listdir(directory) if name.isdigit()], default=0)
    last_saved = {"before-saving": first, "after-saving": first + EVERY}.get(when, NUM_STEPS)

    def callback(state):
        # Six steps on, the save that started at `last_saved` has long been written.
        if state.step == last_saved + 6 and last_saved < NUM_STEPS:
            while last_saved and not os.path.exists(os.path.join(directory, str(last_saved))):
                time.sleep(0.001)
            _kill()

    if when == "while-saving":
        threading.Thread(target=_kill_while_saving, args=(directory,), daemon=True).start()
    run(directory, [callback])
