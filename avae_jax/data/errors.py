"""The exception for data that a user can mend."""


class DataError(ValueError):
    """Data or a data setting is unusable; the message is one line and says what to do."""
