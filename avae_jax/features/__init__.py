"""Image features for Fréchet and nearest-neighbour metrics: Inception-v3 and small classifiers.

No weights are shipped. `load_inception_weights` reads a file the user has; `train_classifier`
makes features for one data set from its labels. Scores are comparable only within one set of
weights, so both carry a hash to print beside a score.
"""

from avae_jax.features.classifier import Classifier, load_classifier, train_classifier
from avae_jax.features.inception import InceptionWeights, inception_features, inception_shapes
from avae_jax.features.inception_weights import load_inception_weights, save_inception_npz

__all__ = [
    "Classifier",
    "InceptionWeights",
    "inception_features",
    "inception_shapes",
    "load_classifier",
    "load_inception_weights",
    "save_inception_npz",
    "train_classifier",
]
