"""The schemas of the resources, as data: one file a resource."""
