"""How the numbers that every run reports are shown; a method adds its own."""

from avae_jax.methods import Method
from avae_jax.terms import Term, Terms

TERMS: Terms = {
    "loss": Term(caption="Loss", short="loss", log=True),
    "criterion": Term(caption="Criterion", short="criterion", log=True, lowest=True),
    "learning_rate": Term(caption="Learning rate", short="learning rate", log=True),
    "gradient_norm": Term(caption="Gradient norm", short="gradient norm", log=True),
    "images_per_second": Term(
        caption="Images trained per second, validation and saving counted", short="images/s"
    ),
    # Counted beside the share.
    "num_skipped": None,
}


def terms_of(method: Method) -> Terms:
    """Return how what a run of a method reports is shown, in the order of its figures."""
    return {"loss": TERMS["loss"], **method.terms, **TERMS}
