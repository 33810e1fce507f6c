"""Images converted, and maps drawn over them."""
