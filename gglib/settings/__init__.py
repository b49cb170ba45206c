"""Settings, in layers: flags over environment over file over defaults. Strict, and cheap to import.

Nothing is ignored: an unknown key or a wrong value is a ``ConfigurationError`` that says where
it was read and what would be right.
"""

from gglib.settings.load import find_data_dir, find_settings_file, load_settings
from gglib.settings.telemetry import TelemetrySettings
from gglib.settings.values import (
    DeclaredModel,
    GatewaySettings,
    LoadedSettings,
    PoolSettings,
    RoutingSettings,
    ServingSettings,
    Settings,
)

__all__ = [
    "DeclaredModel",
    "GatewaySettings",
    "LoadedSettings",
    "PoolSettings",
    "RoutingSettings",
    "ServingSettings",
    "Settings",
    "TelemetrySettings",
    "find_data_dir",
    "find_settings_file",
    "load_settings",
]
