"""The only place that picks classes: from recipe and config to the objects that do the work.

`environment` is all that an environment gives, whatever the recipe; `recipe` adds what learns. They are
imported each by itself: serving and scoring need nothing of what learns.
"""
