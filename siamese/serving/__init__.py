"""A model and a gallery as a service: HTTP answers, a page, batches of many askers' pictures."""
