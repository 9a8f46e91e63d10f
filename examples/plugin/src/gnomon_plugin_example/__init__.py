"""A plugin of gnomon to copy: two components and a tracker."""
