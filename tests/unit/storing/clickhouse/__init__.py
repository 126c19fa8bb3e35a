"""The parts of CLICKHOUSE below the plugin."""
