"""What a caller may do to a resource: one file a verb."""
