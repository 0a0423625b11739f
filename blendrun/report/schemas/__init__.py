"""What commands print as JSON, as types with schemas, and how it is made."""
