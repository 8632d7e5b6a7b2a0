"""`python -m avae_jax` is the command `avae`."""

from avae_jax.cli import main

if __name__ == "__main__":
    main()
