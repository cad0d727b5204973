"""The names that columns have once they were recognised, and those that only last while a file is read."""

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
BEHAVIOR = "behavior"
WEIGHT = "weight"
TITLE = "title"
IMAGE = "image"

DEFAULT_BEHAVIOR = "interaction"
"""What an interaction is called where the log does not say."""

FILE = "__file"
LINE = "__line"
REASON = "__reason"
"""Why a row is left out; null in rows that stay."""
EXTRA = "__extra"
"""What a row has beyond the header's last column."""
