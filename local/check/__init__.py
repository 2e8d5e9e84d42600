"""A checker for any SageMaker image: runs it as the service would, and names what does not hold."""
