"""Endpoint configurations by unmodified boto3."""

import pytest
from botocore.exceptions import ClientError

ARN = "arn:aws:sagemaker:us-west-2:123456789012:endpoint-config/c"
VARIANT = {"VariantName": "A", "ModelName": "m", "InitialInstanceCount": 1,
           "InstanceType": "ml.m5.large"}


@pytest.fixture
def ready(hosting):
    hosting.create_model("m")
    return hosting


def create(hosting, *variants, **members):
    return hosting.sm.create_endpoint_config(
        EndpointConfigName="c", ProductionVariants=list(variants or [VARIANT]), **members
    )


def refusal(hosting, *variants, **members) -> str:
    with pytest.raises(ClientError) as raised:
        create(hosting, *variants, **members)
    error = raised.value.response["Error"]
    assert error["Code"] == "ValidationException"
    return error["Message"]


def test_a_configuration_is_described_with_the_default_weight(ready):
    """VAR-01, WIRE-12; the SDK's update_endpoint reads each of these members."""
    variant = {**VARIANT, "VolumeSizeInGB": 30, "ModelDataDownloadTimeoutInSeconds": 60,
               "ContainerStartupHealthCheckTimeoutInSeconds": 60}
    assert create(ready, variant, KmsKeyId="key")["EndpointConfigArn"] == ARN
    described = ready.sm.describe_endpoint_config(EndpointConfigName="c")
    assert described["EndpointConfigArn"] == ARN
    assert described["KmsKeyId"] == "key"
    assert described["ProductionVariants"] == [{**variant, "InitialVariantWeight": 1.0}]


def test_a_second_configuration_and_an_unknown_one_are_told_in_the_services_words(ready):
    """WIRE-06."""
    with pytest.raises(ClientError) as raised:
        ready.sm.describe_endpoint_config(EndpointConfigName="c")
    message = raised.value.response["Error"]["Message"]
    assert message == f'Could not find endpoint configuration "{ARN}".'
    create(ready)
    assert refusal(ready) == f'Cannot create already existing endpoint configuration "{ARN}".'
    ready.sm.delete_endpoint_config(EndpointConfigName="c")
    with pytest.raises(ClientError, match="Could not find"):
        ready.sm.delete_endpoint_config(EndpointConfigName="c")


def test_a_model_that_does_not_exist_is_told_with_its_arn(hosting):
    """WIRE-06."""
    arn = "arn:aws:sagemaker:us-west-2:123456789012:model/m"
    assert refusal(hosting) == f'Could not find model "{arn}".'


def test_configurations_are_listed_newest_first(ready):
    """WIRE-10."""
    for name in ("one", "two"):
        ready.create_config(name, A="m")
    listed = ready.sm.list_endpoint_configs()["EndpointConfigs"]
    assert [each["EndpointConfigName"] for each in listed] == ["two", "one"]
    assert set(listed[0]) == {"EndpointConfigName", "EndpointConfigArn", "CreationTime"}


def test_ten_variants_are_taken_and_eleven_are_not(ready):
    """VAR-01."""
    variants = [{**VARIANT, "VariantName": f"V{n}"} for n in range(11)]
    assert "10" in refusal(ready, *variants)
    create(ready, *variants[:10])


CAPTURE = {"InitialSamplingPercentage": 100, "DestinationS3Uri": "s3://b/c",
           "CaptureOptions": [{"CaptureMode": "Input"}]}
BARE = {"VariantName": "A", "ModelName": "m"}


@pytest.mark.parametrize(
    ("variant", "members", "words"),
    [
        ({**BARE, "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, {},
         ("ServerlessConfig", "instance-based")),
        ({"VariantName": "A", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}, {},
         ("inference components", "ModelName")),
        (BARE, {}, ("InstanceType and InitialInstanceCount",)),
        ({**VARIANT, "InitialVariantWeight": 0.0}, {}, ("above 0",)),
        ({**VARIANT, "ManagedInstanceScaling": {"Status": "ENABLED"}}, {},
         ("UpdateEndpointWeightsAndCapacities",)),
        ({**VARIANT, "CoreDumpConfig": {"DestinationS3Uri": "s3://b/"}}, {}, ("log",)),
        ({**VARIANT, "EnableSSMAccess": True}, {}, ("EnableSSMAccess",)),
        ({**VARIANT, "AcceleratorType": "ml.eia2.medium"}, {}, ("InstanceType",)),
        ({**VARIANT, "RoutingConfig": {"RoutingStrategy": "KV_AWARE"}}, {},
         ("LEAST_OUTSTANDING_REQUESTS",)),
        (VARIANT, {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/o"}}},
         ("AsyncInferenceConfig", "InvokeEndpoint")),
        (VARIANT, {"ShadowProductionVariants": [{**VARIANT, "VariantName": "S"}]},
         ("TargetVariant",)),
        (VARIANT, {"DataCaptureConfig": {"EnableCapture": True, **CAPTURE}},
         ("EnableCapture false",)),
        (VARIANT, {"EnableNetworkIsolation": True}, ("EnableNetworkIsolation false",)),
        (VARIANT, {"MetricsConfig": {"EnableEnhancedMetrics": True}}, ("AWS/SageMaker",)),
        (VARIANT, {"ExplainerConfig": {"ClarifyExplainerConfig": {"ShapConfig": {
            "ShapBaselineConfig": {}}}}}, ("ExplainerConfig",)),
    ],
)
def test_what_is_not_run_is_refused_at_once_with_the_nearest(ready, variant, members, words):
    """VAR-01 … VAR-03, HOST-49."""
    message = refusal(ready, variant, **members)
    for word in words:
        assert word in message


def test_variant_names_are_unique(ready):
    assert "unique: A" in refusal(ready, VARIANT, VARIANT)


def test_an_instance_type_that_does_not_host_is_refused_by_the_api(ready):
    """CHK-46."""
    assert "instanceType" in refusal(ready, {**VARIANT, "InstanceType": "ml.m5.gigantic"})


def test_members_that_ask_for_nothing_are_taken(ready):
    create(ready, {**VARIANT, "EnableSSMAccess": False,
                   "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}},
           DataCaptureConfig={"EnableCapture": False, **CAPTURE}, EnableNetworkIsolation=False)
    assert ready.sm.describe_endpoint_config(EndpointConfigName="c")
