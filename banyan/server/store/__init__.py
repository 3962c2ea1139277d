"""The only place that writes MongoDB: one file a collection."""
