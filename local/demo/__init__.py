"""The guided tour: train, deploy and evaluate a digit classifier on the local SageMaker."""
