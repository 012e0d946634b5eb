"""`make panel`: the virtual board on a page, for people who would rather look than type."""
