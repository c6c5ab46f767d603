"""The city's memory: rules, store and use cases."""
