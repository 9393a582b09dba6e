"""Models held side by side: what is published about them (`registry`), each fact with its source."""
