"""/docs and /redoc: the API's documentation as pages that need nothing from elsewhere."""
