"""What a compression run says when it cannot do what it was asked."""


class BlockDropError(ValueError):
    """Model, data and settings of a compression do not fit each other; the message says what to do."""
