"""A saved recommender comes in; a service over HTTP goes out: live histories, rules, experiments, pages."""

from recloom.serving.app import create_app
from recloom.serving.running import running
from recloom.serving.settings import ServiceConfig, Settings, read_settings

__all__ = ["ServiceConfig", "Settings", "create_app", "read_settings", "running"]
