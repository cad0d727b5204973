"""The names that columns have once they were recognised."""

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
BEHAVIOR = "behavior"
WEIGHT = "weight"
TITLE = "title"
IMAGE = "image"

DEFAULT_BEHAVIOR = "interaction"
"""What an interaction is called where the log does not say."""
