"""What is tested: cells, image recipes, answers. Pure models, which only read their own files in `profiles/`."""
