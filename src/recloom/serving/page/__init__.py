"""What the service knows -> pages for people: HTML without a script, from the service's own host."""

from recloom.serving.page.views import router

__all__ = ["router"]
